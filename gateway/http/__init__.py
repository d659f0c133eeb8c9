"""The HTTP side: handlers that know no server, and the thin adapters that put them under one."""
