"""Who is calling, and what they may do: the same for HTTP, the WebSocket and gRPC.

Read in this order; what comes before `master_keys` is pure:

    permissions   READ, TRADE, WITHDRAW
    networks      the addresses a key may be used from
    signing       the bytes that are signed, and the two kinds of keys
    vault         secrets at rest, and master keys
    window        when a signed request may arrive, and that it arrives once
    caller        who calls, and what order-service says of tokens and keys
    kept          its answers, kept for a moment
    signed        a signed request, from what it carries to who sent it
    master_keys   where master keys come from

`common.keys` makes and ends keys in the database.
"""
