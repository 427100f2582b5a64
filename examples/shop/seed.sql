-- What the shop holds when it opens; put in once, into empty tables, in one transaction.
-- Passwords: alice-s3cret and bob-s3cret.

INSERT INTO users (id, name, email, password_hash, wechat_openid, created_at) VALUES
  (1, 'Alice', 'alice@shop.example', '$2y$10$42ZHVDGwG3D9p1gh5QH/neiOYGUd8fA3q7R5miLsJ03I1SJUNFt9q', NULL, '2024-01-15T08:00:00Z'),
  (2, 'Böb O''Neil', 'bob@shop.example', '$2y$10$E8ENsmaKcfsUc9..vPBZW.xL74yHaVvRc16tebkl1OXfyxscN2Lki', NULL, '2024-02-20T17:30:00Z');

INSERT INTO products (id, sku, name, description, price_cents, stock, picture) VALUES
  (1, 'SKU-1000', 'Strangler fig', 'A young fig in a clay pot. Starts small on an old tree, ends as a tree of its own.', 2490, 40, NULL),
  (2, 'SKU-1007', '茶具套装 (tea set)', '白瓷茶具一套：茶壶一把，茶杯四只。', 12900, 25, NULL),
  (3, 'SKU-1014', 'Café crème, 250 g', 'Whole beans, medium roast; naïve about mornings.', 890, 120, NULL),
  (4, 'SKU-1021', 'Enamel mug "/dev/null"', 'Takes whatever is poured in. 300 ml.', 1450, 200, NULL),
  (5, 'SKU-1028', 'Notebook, squared', 'A5, 96 pages, thread-bound.', 620, 300, NULL),
  (6, 'SKU-1035', 'Fountain pen', 'Fine nib, converter included.', 3900, 35, NULL),
  (7, 'SKU-1042', 'Ink, blue-black', '50 ml, waterproof.', 1100, 80, NULL),
  (8, 'SKU-1049', 'Desk lamp', 'Warm light, dims to 5 %.', 5490, 18, NULL),
  (9, 'SKU-1056', 'Wool blanket', '130 × 180 cm, undyed.', 7900, 22, NULL),
  (10, 'SKU-1063', 'Linen apron', 'One size, two pockets.', 3450, 40, NULL),
  (11, 'SKU-1070', 'Cast-iron pan', '24 cm. Outlives its owner.', 4290, 30, NULL),
  (12, 'SKU-1077', 'Bread knife', 'Beech handle, 22 cm blade.', 3290, 45, NULL),
  (13, 'SKU-1084', 'Cutting board', 'Oak, 35 × 25 cm, oiled.', 2790, 50, NULL),
  (14, 'SKU-1091', 'Olive oil, 0.5 l', 'First pressing, this year''s.', 1290, 90, NULL),
  (15, 'SKU-1098', 'Sea salt', 'Flakes, 125 g.', 540, 150, NULL),
  (16, 'SKU-1105', 'Honey', 'Linden, 500 g; from 3 hives & one stubborn beekeeper.', 980, 70, NULL),
  (17, 'SKU-1112', 'Rye flour', 'Type 1150, 1 kg.', 240, 400, NULL),
  (18, 'SKU-1119', 'Seed box', 'Twelve vegetables <not> for winter.', 1850, 60, NULL),
  (19, 'SKU-1126', 'Watering can', 'Zinc, 5 l.', 3990, 16, NULL),
  (20, 'SKU-1133', 'Pruning shears', 'Replaceable blade.', 2950, 28, NULL),
  (21, 'SKU-1140', 'Bicycle bell', 'Brass, 口笛 in C.', 1690, 75, NULL),
  (22, 'SKU-1147', 'Rain cape', 'Packs to the size of a fist.', 4490, 33, NULL),
  (23, 'SKU-1154', 'Pocket torch', 'USB-C, 400 lm.', 2650, 64, NULL),
  (24, 'SKU-1161', 'Last one', 'There is exactly one of it left.', 9900, 1, NULL);

INSERT INTO orders (id, user_id, status, total_cents, created_at) VALUES
  (1, 1, 'shipped', 4270, '2024-03-11T11:21:00Z'),
  (2, 1, 'shipped', 10370, '2024-04-11T12:22:00Z'),
  (3, 2, 'shipped', 12900, '2024-05-11T13:23:00Z'),
  (4, 2, 'shipped', 8400, '2024-06-11T14:24:00Z'),
  (5, 1, 'shipped', 540, '2024-07-11T15:25:00Z'),
  (6, 2, 'shipped', 6940, '2024-08-11T16:20:00Z'),
  (7, 1, 'paid', 8980, '2024-09-11T17:21:00Z'),
  (8, 2, 'paid', 13390, '2024-10-11T18:22:00Z');

INSERT INTO order_items (order_id, product_id, quantity, price_cents) VALUES
  (1, 1, 1, 2490),
  (1, 3, 2, 890),
  (2, 11, 1, 4290),
  (2, 12, 1, 3290),
  (2, 13, 1, 2790),
  (3, 2, 1, 12900),
  (4, 5, 10, 620),
  (4, 7, 2, 1100),
  (5, 15, 1, 540),
  (6, 19, 1, 3990),
  (6, 20, 1, 2950),
  (7, 22, 2, 4490),
  (8, 8, 1, 5490),
  (8, 9, 1, 7900);
