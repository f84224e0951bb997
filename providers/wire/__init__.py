"""What the HTTP clients of all providers share: a transport that knows what left, answers, and how they are read."""
