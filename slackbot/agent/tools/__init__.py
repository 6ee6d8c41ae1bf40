"""The tools Claude may use, one module each."""
