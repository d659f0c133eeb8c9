"""Adyen's Checkout API: `adapter` sends what `orders` build, `answers` and `notifications` read."""
