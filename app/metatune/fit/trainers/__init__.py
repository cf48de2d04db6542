"""Who trains and measures at given meta-parameters: this process, or a command elsewhere."""
