"""The `tollgate` command. The only place that may import the parts, and only lazily."""
