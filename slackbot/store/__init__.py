"""What must survive a crash, in one SQLite file."""
