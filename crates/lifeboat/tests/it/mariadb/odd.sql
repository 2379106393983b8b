SET NAMES utf8mb4;
CREATE TABLE `all values` (
  id int AUTO_INCREMENT PRIMARY KEY, tiny tinyint unsigned, big bigint, f double, d decimal(30,10), bits bit(17),
  s varchar(200) CHARACTER SET utf8mb4, l text CHARACTER SET latin1, b longblob, j json, e enum('a','b''c',''),
  st set('x','y'), y year, t time(6), dt datetime(3), ts timestamp NULL, g point, u uuid, i inet6,
  v int AS (tiny * 2) VIRTUAL, p int AS (tiny + 1) PERSISTENT, z date DEFAULT '0000-00-00', inv int INVISIBLE DEFAULT 7
) AUTO_INCREMENT = 1000 COMMENT 'a\nb ''c'' ;';
INSERT INTO `all values` (tiny, big, f, d, bits, s, l, b, j, e, st, y, t, dt, ts, g, u, i) VALUES
  (200, -9223372036854775808, 1.7976931348623157e308, 12345678901234567890.0123456789, b'10101010101010101',
   '😀\\ "\'`\0\n\r\t\Z%_', _latin1 x'e4f6fc', x'00ff271b0a0d5c22', '{"a": "\\u00e4"}', 'b''c', 'x,y', 2026,
   '-838:59:58.999999', '2026-02-29 00:00:00', '1970-01-01 00:00:01', POINT(1.5, -2), UUID(), '::1'),
  (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, '0000-00-00 00:00:00', NULL, NULL, NULL, NULL),
  (0, 0, -0.0, 0, b'0', '', '', '', '[]', '', '', 0, '0', '9999-12-31 23:59:59.999', '2038-01-19 03:14:07', NULL, NULL, NULL);
CREATE TABLE empty (id int);
CREATE TABLE `back``quote 表` (`col``umn VALUES (` int PRIMARY KEY, `select` text);
INSERT INTO `back``quote 表` VALUES (1, 'INSERT INTO `no` VALUES (1);'), (2, '); -- ');
CREATE TABLE parent (id int PRIMARY KEY) ENGINE = InnoDB;
CREATE TABLE child (id int PRIMARY KEY, parent int, FOREIGN KEY (parent) REFERENCES parent (id) ON DELETE CASCADE);
CREATE TABLE a_cycle (id int PRIMARY KEY, other int, FOREIGN KEY (other) REFERENCES a_cycle (id));
INSERT INTO parent VALUES (1), (2);
INSERT INTO child VALUES (1, 1), (2, 2), (3, NULL);
SET foreign_key_checks = 0;
INSERT INTO a_cycle VALUES (1, 2), (2, 1);
CREATE TABLE parts (id int, y int) PARTITION BY RANGE (y) (PARTITION p0 VALUES LESS THAN (10), PARTITION p1 VALUES LESS THAN MAXVALUE);
INSERT INTO parts SELECT seq, seq FROM seq_1_to_5000;
CREATE TABLE versions (id int PRIMARY KEY, x int) WITH SYSTEM VERSIONING;
INSERT INTO versions VALUES (1, 1);
UPDATE versions SET x = 2;
CREATE TABLE loose (id int PRIMARY KEY, x varchar(10)) ENGINE = MyISAM;
INSERT INTO loose VALUES (1, 'a');
CREATE TABLE log (at int AUTO_INCREMENT PRIMARY KEY, what text);
CREATE TABLE `metrics_a` (id int PRIMARY KEY, x int);
INSERT INTO metrics_a VALUES (1, 1), (2, 2);
CREATE SEQUENCE counter START WITH 5 INCREMENT BY 3;
DO NEXTVAL(counter);
CREATE VIEW `a view` AS SELECT c.id, p.id AS parent FROM child c LEFT JOIN parent p ON p.id = c.parent;
CREATE VIEW over_it AS SELECT count(*) AS n, 'x;y' AS t FROM `a view`;
CREATE VIEW of_metrics AS SELECT * FROM metrics_a;
DELIMITER ;;
CREATE TRIGGER noted AFTER INSERT ON parent FOR EACH ROW BEGIN
INSERT INTO `log` (what) VALUES ('INSERT INTO `no` VALUES (1);');
END;;
CREATE FUNCTION twice(x int) RETURNS int DETERMINISTIC RETURN x * 2;;
CREATE PROCEDURE `odd ``procedure`(IN x int, OUT y int) BEGIN
  -- a comment; and "a" 'quote'
INSERT INTO `log` VALUES (NULL, 'p');
  SET y = twice(x);
END;;
CREATE EVENT `each second` ON SCHEDULE EVERY 1 SECOND ON COMPLETION PRESERVE DISABLE COMMENT 'it''s' DO BEGIN
  INSERT INTO log (what) VALUES ('event');
END;;
CREATE EVENT later ON SCHEDULE AT '2037-01-01 00:00:00' DO DELETE FROM log;;
DELIMITER ;
INSERT INTO parent VALUES (3);
