"""Stripe, through its official library: what is sent, what an answer comes to, how an Unknown is resolved."""
