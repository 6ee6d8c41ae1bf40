"""What a turn says: the tool loop, the prompts, the history Claude is given, the tools."""
