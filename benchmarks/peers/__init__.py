"""What the gateway is measured beside: the same interface, built by others' usual means."""
