"""What `tollgate verify` is made of: witnesses are read, sorted by payment, and judged by rules.

`testimony` is what all witnesses say of one payment; the `rules_*` are pure functions over it; `judging` runs
them and counts; the `read_*` modules are the adapters, one a witness; `spool` lets a million payments be
judged in little memory; `looking` says in which order the witnesses are read, and why.
"""
