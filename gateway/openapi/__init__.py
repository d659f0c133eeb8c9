"""The HTTP interface as an OpenAPI 3.1 document, and the page that shows it. Static once built."""
