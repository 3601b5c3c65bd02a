-- A user's live orders, newest first: asked for by every page and bot, and few among all that ever were.
CREATE INDEX orders_live_by_user ON orders (user_id, order_id) WHERE status <= 3;
