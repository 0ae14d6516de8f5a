"""ALFWorld: household tasks as text games, on an engine of our own or on the real TextWorld one."""
