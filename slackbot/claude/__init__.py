"""The one client for Claude, its errors, models, prices and usage."""
