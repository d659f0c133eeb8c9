"""The payment service providers, each behind the same small interface."""
