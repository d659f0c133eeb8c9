"""How long `tollgate verify` takes over many payments, and in how much memory: `make bench-verify`."""
