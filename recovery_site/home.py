"""The front door: the root address, log-in and log-out."""

from django.contrib.auth.views import LoginView, LogoutView
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect


def root(request: HttpRequest) -> HttpResponse:
    """The dashboard for those who are logged in, the log-in page for everybody else."""
    return redirect("dashboard" if request.user.is_authenticated else "login")


class LogIn(LoginView):
    """Log-in for everyone with an account; the staff admin shares the session."""

    redirect_authenticated_user = True
    next_page = "dashboard"


class LogOut(LogoutView):
    """Log-out by POST, then back to the log-in page."""

    next_page = "login"
