"""Seeded stories in which everything dies at the wrong moment. `plan` decides, `world` acts, `checks` judges."""
