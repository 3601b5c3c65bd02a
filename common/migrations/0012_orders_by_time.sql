-- A user's orders, newest first, also from some time on: ids alone do not follow the time, since each
-- order-service takes them in blocks. In place of the indexes on (user_id, order_id), so that TX1 pays no more.
DROP INDEX orders_by_user;
DROP INDEX orders_live_by_user;
CREATE INDEX orders_by_user ON orders (user_id, created_us, order_id);
CREATE INDEX orders_live_by_user ON orders (user_id, created_us, order_id) WHERE live;
