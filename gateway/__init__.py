"""The gateway: HTTP in, gRPC out, one port. It keeps no state that a restart could lose. Runs on Trio.

Read in this order:

    __main__        what is made, and in which order it ends
    serve           the port: HTTP, or a WebSocket that is spliced to market-data
      peek, splice    looking at the first request; copying bytes
      proxies         whose address it is, behind proxies of ours
      pace            how slowly a client may send
      connection      one HTTP connection around hypercorn's H11Protocol (inbox: its ASGI side)
      browsers, cors    what every answer tells browsers; pages of other origins
    door            who comes in, under a load that cannot be carried (glance: what is turned away unparsed)
    asgi            each request: its id, its body, its count; hot route or Quart
    app             handlers and the pipeline, put together
    declaration     what a route takes and answers, said once for the router and the documents
    pipeline        what each API request passes: identity (auth), and stages around it
      limits          who may ask how much: its stages; limiter: in Redis, or here while it is away
        windows         sliding windows in memory; windows_script: the same in Lua
      idempotency     what is repeated under an Idempotency-Key; records: its answers in Redis
    routes_*        what is served: public, private, session, test (local mode), ops, docs; static_files
      query, validation   strict reading of parameters and bodies (forms: what orders have in common)
      render, shapes      protobuf to the JSON of the public contract; its types
    openapi, asyncapi   the API as documents, made from the declarations and the types that are sent
    services        the daemons behind; bridge: gRPC from Trio; markets: what is kept of them
      batching        concurrent orders in one call; gather: the same for questions of one kind
      settled         those who wait until their orders are settled
    redis_pipe      Redis, shared by concurrent requests; resp: its protocol
    calls, errors   a request and an answer as values; errors as answers
    metrics         what is counted
    static/         the page: no build step, ES modules
"""
