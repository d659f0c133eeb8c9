"""What the parts of Tollgate share, and nothing else.

The gateway, cdc and processor packages never import each other; all of them may import this one. Only
`tollgate.cli` may import the parts, lazily. tests/tidy holds the rule.
"""
