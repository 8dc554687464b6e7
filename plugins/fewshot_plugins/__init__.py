"""Built-in strategies, one paper a file; each module is an ordinary plugin, declared as an entry point."""
