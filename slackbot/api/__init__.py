"""The HTTP edge: health for operators and their monitors."""
