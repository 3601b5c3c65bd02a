"""The daemons on asyncio: order_service, matching, market_data; and local, which runs everything here.

They never import one another: what they say to each other stands in proto/exchange/v1.
"""
