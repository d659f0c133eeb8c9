"""Load that checks itself: what every client was told is compared with everything that the system knows.

`locustfile` are shoppers who do what shoppers do; `day` is a million payments and ten million queries a day,
open loop. Both write a client log and end with `tollgate verify`, whose exit code is theirs.
"""
