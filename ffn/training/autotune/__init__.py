"""Finding the threads and ranks that train fastest on a node: `ffn train --autotune`.

`candidates` says what is worth trying, `teams` starts the processes of one candidate, which run `turns` of real steps,
`search` spends the time given on them, and `tuning` is what was found.
"""
