-- The shop's tables, read by both sides: examples/shop/db.rs and examples/shop/legacy/src/database.php.
--
-- One text for SQLite and for MySQL/MariaDB: what stands in /*! … */ is a comment to the former and
-- code to the latter. Money is integer cents, times are RFC 3339 texts in UTC.

CREATE TABLE IF NOT EXISTS users (
  id            INTEGER PRIMARY KEY /*! AUTO_INCREMENT */,
  name          VARCHAR(100) NOT NULL,
  email         VARCHAR(190) UNIQUE,
  password_hash VARCHAR(100),
  wechat_openid VARCHAR(100) UNIQUE,
  created_at    VARCHAR(20) NOT NULL
) /*! ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 */;

CREATE TABLE IF NOT EXISTS products (
  id            INTEGER PRIMARY KEY /*! AUTO_INCREMENT */,
  sku           VARCHAR(20) NOT NULL UNIQUE,
  name          VARCHAR(190) NOT NULL,
  description   VARCHAR(1000) NOT NULL,
  price_cents   BIGINT NOT NULL,
  stock         BIGINT NOT NULL,
  picture       VARCHAR(190)
) /*! ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 */;

CREATE TABLE IF NOT EXISTS orders (
  id            INTEGER PRIMARY KEY /*! AUTO_INCREMENT */,
  user_id       INTEGER NOT NULL REFERENCES users (id),
  status        VARCHAR(20) NOT NULL,
  total_cents   BIGINT NOT NULL,
  created_at    VARCHAR(20) NOT NULL
) /*! ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 */;

CREATE TABLE IF NOT EXISTS order_items (
  order_id      INTEGER NOT NULL REFERENCES orders (id),
  product_id    INTEGER NOT NULL REFERENCES products (id),
  quantity      BIGINT NOT NULL,
  price_cents   BIGINT NOT NULL,
  PRIMARY KEY (order_id, product_id)
) /*! ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 */;
