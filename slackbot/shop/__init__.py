"""The shop: its orders, and who may see which."""
