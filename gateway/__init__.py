"""The gateway: HTTP in, gRPC out, one port. It keeps no state that a restart could lose. Runs on Trio.

Read in this order:

    __main__        what is made, and in which order it ends
    serve           the port: HTTP, or a WebSocket that is spliced to market-data
      peek, splice    looking at the first request; copying bytes
      connection      one HTTP connection around hypercorn's H11Protocol (inbox: its ASGI side)
    asgi            each request: its id, its body, its count; hot route or Quart
    app             which path is which handler
    pipeline        what each API request passes: identity (auth), and room for limits
    routes_*        the handlers: public, private, test (local mode), ops; static_files: the page
      query, validation   strict reading of parameters and bodies
      render              protobuf to the JSON of the public contract
    services        the daemons behind; bridge: gRPC from Trio; markets: what is kept of them
      batching        concurrent orders in one call
    calls, errors   a request and an answer as values; errors as answers
    metrics         what is counted
    static/         the page: no build step, ES modules
"""
