-- Everything odd but healthy that the owner of a database can make. :"reader" and :"writer" are roles.
SET client_min_messages = warning;

CREATE EXTENSION hstore;
CREATE SCHEMA "Ext ""quoted"" schema";
CREATE EXTENSION pg_trgm SCHEMA "Ext ""quoted"" schema";
CREATE EXTENSION pgcrypto;
CREATE EXTENSION "uuid-ossp";
CREATE EXTENSION citext;
CREATE EXTENSION btree_gist;
COMMENT ON SCHEMA "Ext ""quoted"" schema" IS E'A comment with ''quotes'', a \\ and\na second line';

CREATE SCHEMA "Upper Case";
CREATE SCHEMA empty_schema;
GRANT USAGE ON SCHEMA "Upper Case" TO :"reader" WITH GRANT OPTION;
GRANT USAGE, CREATE ON SCHEMA public TO :"writer";

-- Default privileges, of all schemas and of one.
ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO :"reader";
ALTER DEFAULT PRIVILEGES IN SCHEMA "Upper Case" GRANT INSERT, UPDATE ON TABLES TO :"writer";
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
ALTER DEFAULT PRIVILEGES IN SCHEMA "Upper Case" GRANT USAGE ON SEQUENCES TO :"writer";

-- Types.
CREATE TYPE mood AS ENUM ('sad', 'ok', 'it''s "great"');
ALTER TYPE mood ADD VALUE 'so so' BEFORE 'ok';
CREATE TYPE pair AS (a int, "B b" text[], c mood);
CREATE TYPE "Upper Case".span AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi);
CREATE DOMAIN positive AS numeric(12, 3) DEFAULT 1 NOT NULL CHECK (VALUE > 0);
CREATE DOMAIN small_positive AS positive CONSTRAINT is_small CHECK (VALUE < 1000);
CREATE DOMAIN moods AS mood[] CHECK (array_length(VALUE, 1) <= 3);
COMMENT ON TYPE mood IS 'how it is';
COMMENT ON CONSTRAINT is_small ON DOMAIN small_positive IS 'not much';
GRANT USAGE ON TYPE mood TO :"reader";
REVOKE USAGE ON TYPE pair FROM PUBLIC;

-- Collations.
CREATE COLLATION german_book (PROVIDER = icu, LOCALE = 'de-u-co-phonebk');
CREATE COLLATION no_case (PROVIDER = icu, LOCALE = 'und-u-ks-level2', DETERMINISTIC = false);
CREATE COLLATION "Upper Case"."as C" FROM "C";
CREATE TABLE collated (de text COLLATE german_book PRIMARY KEY, nocase text COLLATE no_case UNIQUE,
  c text COLLATE "C", u text COLLATE "Upper Case"."as C");
CREATE INDEX ON collated (c COLLATE german_book DESC NULLS LAST);
INSERT INTO collated VALUES ('Ärger', 'One', 'b', 'B'), ('Zorn', 'Two', 'a', NULL), ('ßharp', 'three', NULL, 'é');

-- Values that are hard to write down.
CREATE TABLE all_values (id int PRIMARY KEY, f8 float8, f4 float4, n numeric, m money, t text, v varchar(5), ch char(7),
  b bytea, j json, jb jsonb, d date, ts timestamp, tz timestamptz, ti time, tt timetz, i interval, u uuid, ip inet,
  net cidr, mac macaddr, mac8 macaddr8, bits bit(3), bitv bit varying, p point, po polygon, ci circle, li line,
  x xml, q tsquery, tv tsvector, h hstore, em citext, mo mood, pr pair, prs pair[], r int4range, mr int4multirange,
  sp "Upper Case".span, a int[], aa text[][], dom small_positive, ms moods, ln pg_lsn, jp jsonpath, o oid, c "char", bo boolean);
INSERT INTO all_values (id, f8, f4, n, m, t, v, ch, b, j, jb, d, ts, tz, ti, tt, i, u, ip, net, mac, mac8, bits, bitv,
  p, po, ci, li, x, q, tv, h, em, mo, pr, prs, r, mr, sp, a, aa, dom, ms, ln, jp, o, c, bo) VALUES
  (1, 'Infinity', '-Infinity', 'NaN', 12.34, E'tab\tnewline\nback\\slash ''quote'' \\N \\.', '', ' pad ', '\x00ff0a5c27',
   '{"a" :  1, "a": 2}', '{"b": [1, null, "\u00e4"]}', 'infinity', '-infinity', '0044-03-15 12:00 BC', '24:00',
   '12:00:00.000001+05:30', '-1 year 2 mons -3 days 04:05:06.789', '00000000-0000-0000-0000-000000000001',
   '::1/64', '10.0.0.0/8', '08:00:2b:01:02:03', '08:00:2b:01:02:03:04:05', B'101', B'', '(1e300,-0)',
   '((0,0),(1,1),(1,0))', '<(1,2),3>', '{1,-1,0}', '<a b="c">&amp;<!-- x --></a>', '''fat'':AB & !rat:*',
   'a:1A fat:2B,4C ''it''''s'':5', '"a \"b"=>"c=>d", e=>NULL', 'MiXed', 'it''s "great"',
   ROW(1, ARRAY['x,y', '"', NULL], 'sad'), ARRAY[ROW(NULL, NULL, NULL), ROW(2, '{}', 'ok')]::pair[], '[1,10)',
   '{[1,3),[5,7)}', '(-Infinity,1.5]', '[2:3]={7,NULL}', '{{a,NULL},{"null",""}}', 12.345,
   '{ok,"so so"}', 'FF/FFFFFFFF', '$."a b"[*] ? (@ > 1)', 4294967295, '\377', true),
  (2, 'NaN', 1.1754944e-38, '-Infinity', -92233720368547758.08, '', NULL, '', '', 'null', 'null', '4714-11-24 BC',
   '294276-12-31 23:59:59.999999', 'infinity', '00:00', '00:00-15:59', '0', NULL, '192.168.0.1', '::/0', NULL, NULL,
   B'000', B'1', NULL, NULL, NULL, NULL, NULL, NULL, '', '', '', NULL, NULL, '{}', 'empty',
   '{}', '(,)', '{}', '{}', 0.001, NULL, NULL, NULL, 0, '', false),
  (3, 5e-324, 0.1, '0.000000000000000000000000000000000000001', 0, 'ünïcödé 🚢 ' || chr(1) || chr(127) || chr(160),
   'ééééé', NULL, '\xdeadbeef', '[]', '{"n": 1e400, "d": 0.1000}', '5874897-12-31', '2000-02-29 00:00:00.000001',
   '-infinity', NULL, NULL, '178000000 years', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, '(,5)', NULL, NULL, NULL, NULL, 999.999, NULL, NULL, NULL, NULL, NULL, NULL);
INSERT INTO all_values (id, dom) VALUES (4, 5);

-- Large values, stored in each of the ways.
CREATE TABLE toasted (id int, plain text, extended text, external text, main text, lz text COMPRESSION pglz);
ALTER TABLE toasted ALTER plain SET STORAGE plain, ALTER external SET STORAGE external, ALTER main SET STORAGE main;
INSERT INTO toasted SELECT n, repeat('p', 500), (SELECT string_agg(md5(i::text || n), '') FROM generate_series(1, 5000) i),
  repeat(md5(n::text), 10000), repeat('m', 9000 * n), repeat('abc', 100000) FROM generate_series(1, 3) n;
ALTER TABLE toasted SET (toast_tuple_target = 256, autovacuum_enabled = false, toast.autovacuum_vacuum_threshold = 99);
ALTER TABLE toasted ALTER extended SET STATISTICS 500, ALTER main SET (n_distinct = -0.5);

-- Tables that are hardly tables.
CREATE TABLE no_columns ();
INSERT INTO no_columns DEFAULT VALUES;
INSERT INTO no_columns DEFAULT VALUES;
CREATE TABLE no_rows (LIKE all_values INCLUDING ALL);
CREATE TABLE dropped_columns (a int, gone text, b int DEFAULT 7, gone_too mood);
INSERT INTO dropped_columns VALUES (1, 'x', 2, 'ok');
ALTER TABLE dropped_columns DROP gone, DROP gone_too, ADD added text DEFAULT 'by default';
INSERT INTO dropped_columns VALUES (3);
CREATE TABLE "a name of 63 bytes that is as long as names may become ÄÖÜ abcd" (
  "a column of 63 bytes, with ""quotes"", 'more', commas, and blanks" int PRIMARY KEY,
  "select" text, " lead" text, "tab	in it" text, "%s \ $1" text);
INSERT INTO "a name of 63 bytes that is as long as names may become ÄÖÜ abcd" VALUES (1, 'from', 'where', 'x', 'y');
CREATE UNLOGGED TABLE unlogged (id int GENERATED ALWAYS AS IDENTITY, x text);
INSERT INTO unlogged (x) VALUES ('kept'), ('as well');
CREATE TABLE of_type OF pair (a PRIMARY KEY, c WITH OPTIONS DEFAULT 'ok');
INSERT INTO of_type VALUES (1, '{x}');
CREATE TABLE "Upper Case"."Table" (id serial PRIMARY KEY, "Value" text);
INSERT INTO "Upper Case"."Table" ("Value") SELECT 'value ' || n FROM generate_series(1, 100) n;
SELECT setval('"Upper Case"."Table_id_seq"', 5000, false);

-- Sequences, identity and generated columns.
CREATE SEQUENCE countdown AS smallint INCREMENT -3 MINVALUE -30000 MAXVALUE 100 START 100 CACHE 5 CYCLE;
SELECT nextval('countdown') FROM generate_series(1, 7);
CREATE SEQUENCE never_used START 42;
CREATE TABLE made (id bigint GENERATED BY DEFAULT AS IDENTITY (START 1000 INCREMENT 10) PRIMARY KEY,
  always int GENERATED ALWAYS AS IDENTITY, price positive, size int NOT NULL,
  total numeric GENERATED ALWAYS AS (price * size) STORED, note text DEFAULT 'made at ' || current_schema);
INSERT INTO made (price, size) SELECT n, n * 2 FROM generate_series(1, 20) n;
INSERT INTO made (id, always, price, size) OVERRIDING SYSTEM VALUE VALUES (5, -1, 3.5, 3);
CREATE SEQUENCE owned OWNED BY made.size;

-- Keys in a circle, deferred and not; constraints that are not validated; those of every action.
CREATE TABLE egg (id int PRIMARY KEY, hen int NOT NULL);
CREATE TABLE hen (id int PRIMARY KEY, egg int NOT NULL REFERENCES egg DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE egg ADD CONSTRAINT of_hen FOREIGN KEY (hen) REFERENCES hen DEFERRABLE INITIALLY DEFERRED;
BEGIN; INSERT INTO egg VALUES (1, 1), (2, 1); INSERT INTO hen VALUES (1, 2); COMMIT;
CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON DELETE CASCADE ON UPDATE SET NULL, a int, b int,
  UNIQUE (a, b));
INSERT INTO tree VALUES (3, NULL, 1, 1), (2, 3, 1, 2), (1, 2, 1, NULL), (4, 4, NULL, NULL);
CREATE TABLE refers (a int, b int DEFAULT 2, FOREIGN KEY (a, b) REFERENCES tree (a, b) MATCH FULL
  ON DELETE SET DEFAULT, CONSTRAINT "not much" CHECK (a < 10) NO INHERIT);
INSERT INTO refers VALUES (1, 2);
ALTER TABLE refers ADD CONSTRAINT old_ones_may CHECK (b > 2) NOT VALID;
CREATE TABLE booked (room int, during tstzrange, EXCLUDE USING gist (room WITH =, during WITH &&) WHERE (room > 0),
  CONSTRAINT later UNIQUE (room, during) DEFERRABLE);
INSERT INTO booked VALUES (1, '[2020-01-01,2020-01-02)'), (1, '[2020-01-02,)'), (-1, '(,)'), (-1, '[2020-01-01,)');

-- Indexes of every kind.
CREATE TABLE indexed (id int, words text, tags text[], doc jsonb, at timestamptz, hash uuid, place point);
INSERT INTO indexed SELECT n, 'word ' || n || ' and ' || n * 7, ARRAY['t' || n % 5], jsonb_build_object('n', n),
  '2020-01-01 UTC'::timestamptz + n * interval '1 hour', md5(n::text)::uuid, point(n, -n) FROM generate_series(1, 500) n;
CREATE INDEX ON indexed USING gin (to_tsvector('english', words));
CREATE INDEX ON indexed USING gin (words "Ext ""quoted"" schema".gin_trgm_ops) WITH (fastupdate = off);
CREATE INDEX ON indexed USING gin (doc jsonb_path_ops) WHERE id % 2 = 0;
CREATE INDEX ON indexed USING brin (at) WITH (pages_per_range = 4);
CREATE INDEX ON indexed USING hash (hash);
CREATE INDEX ON indexed USING gist (place);
CREATE INDEX ON indexed USING spgist (words);
CREATE INDEX "Upper ""index""" ON indexed (lower(words) text_pattern_ops, (doc ->> 'n') DESC NULLS LAST, at) INCLUDE (id);
CREATE UNIQUE INDEX by_id ON indexed (id) WITH (fillfactor = 50);
ALTER TABLE indexed ALTER id SET NOT NULL;
ALTER TABLE indexed CLUSTER ON by_id;
ALTER TABLE indexed REPLICA IDENTITY USING INDEX by_id;
ALTER INDEX "Upper ""index""" ALTER COLUMN 2 SET STATISTICS 77;
CREATE STATISTICS of_many (ndistinct, dependencies, mcv) ON id, words, at FROM indexed;
CREATE STATISTICS "Upper Case"."Of Expressions" ON (id % 10), lower(words) FROM indexed;
ALTER STATISTICS of_many SET STATISTICS 200;
COMMENT ON STATISTICS of_many IS 'together';
COMMENT ON INDEX by_id IS 'an index';
ALTER TABLE no_columns REPLICA IDENTITY FULL;
ALTER TABLE toasted REPLICA IDENTITY FULL;

-- Partitions within partitions, attached, with keys and indexes of their own; inheritance.
CREATE TABLE parted (id int, kind text, at date NOT NULL, PRIMARY KEY (at, kind, id)) PARTITION BY RANGE (at);
CREATE TABLE parted_2019 PARTITION OF parted FOR VALUES FROM (MINVALUE) TO ('2020-01-01') PARTITION BY LIST (kind);
CREATE TABLE parted_2019_ab PARTITION OF parted_2019 (id DEFAULT 7) FOR VALUES IN ('a', 'b');
CREATE TABLE "Upper Case"."parted 2019 rest" PARTITION OF parted_2019 DEFAULT;
CREATE TABLE parted_2020 (kind text NOT NULL, gone int, id int NOT NULL, at date NOT NULL);
ALTER TABLE parted_2020 DROP gone;
ALTER TABLE parted ATTACH PARTITION parted_2020 FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE parted_rest PARTITION OF parted DEFAULT PARTITION BY HASH (id);
CREATE TABLE parted_rest_0 PARTITION OF parted_rest FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE parted_rest_1 PARTITION OF parted_rest FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE INDEX of_parted ON parted (kind);
CREATE INDEX only_here ON parted_2020 (id) WHERE id > 5;
INSERT INTO parted SELECT n, chr(97 + n % 4), '2018-06-01'::date + n * 11 FROM generate_series(1, 200) n;
CREATE TABLE by_expression (name text, n int) PARTITION BY LIST (lower(left(name, 1)));
CREATE TABLE by_expression_a PARTITION OF by_expression FOR VALUES IN ('a', NULL);
CREATE TABLE by_expression_empty PARTITION OF by_expression FOR VALUES IN ('z');
INSERT INTO by_expression VALUES ('Anna', 1), (NULL, 2);
CREATE TABLE points_at_parted (at date, kind text, id int, FOREIGN KEY (at, kind, id) REFERENCES parted);
INSERT INTO points_at_parted SELECT at, kind, id FROM parted LIMIT 10;
CREATE TABLE no_partitions (x int) PARTITION BY RANGE (x);
CREATE TABLE parent (id int PRIMARY KEY, a text DEFAULT 'parent', CHECK (id > 0));
CREATE TABLE other_parent (b text);
CREATE TABLE child (a text DEFAULT 'child', c text) INHERITS (parent, other_parent);
CREATE TABLE adopted (id int NOT NULL, a text, CONSTRAINT parent_id_check CHECK (id > 0));
ALTER TABLE adopted INHERIT parent;
INSERT INTO parent VALUES (1);
INSERT INTO child (id, b, c) VALUES (1, 'same key', 'c'), (2, NULL, NULL);
INSERT INTO adopted VALUES (3, 'x');

-- Functions, aggregates, operators, casts.
CREATE FUNCTION atomic(a int, b int DEFAULT 3, VARIADIC more int[] DEFAULT '{}') RETURNS int LANGUAGE sql STABLE PARALLEL SAFE
  BEGIN ATOMIC SELECT a + b + (SELECT coalesce(sum(size), 0)::int FROM made) + cardinality(more); END;
CREATE FUNCTION body_with_anything() RETURNS text LANGUAGE plpgsql STRICT COST 5 SET search_path = public, pg_temp
  SET datestyle = 'German, DMY' AS $outer$
DECLARE x text := $$quoted $1 'twice'$$;
BEGIN
  -- a comment; with $a$ and ''

  RAISE DEBUG E'\\ %', x;
  RETURN x || '
--
-- Name: like an entry of a dump; Type: TABLE; Schema: public; Owner: -
--
';
END $outer$;
CREATE FUNCTION rows_of(INOUT n int, OUT squared bigint) RETURNS SETOF record LANGUAGE sql ROWS 9 AS
  'SELECT i, i * i::bigint FROM generate_series(1, n) i';
CREATE FUNCTION any_of(anyarray) RETURNS anyelement LANGUAGE sql IMMUTABLE AS 'SELECT $1[1]';
CREATE FUNCTION table_of() RETURNS TABLE (a int, "B b" text) SECURITY DEFINER LANGUAGE sql AS $$VALUES (1, 'one')$$;
CREATE FUNCTION by_name("Select" int, "a b" text) RETURNS text LANGUAGE sql RETURN "a b" || "Select";
CREATE FUNCTION late(int) RETURNS int LANGUAGE plpgsql AS 'BEGIN RETURN x FROM a_table_that_is_not_there; END';
CREATE PROCEDURE "Upper Case"."Proc"(INOUT n int, t text DEFAULT E'a''b') LANGUAGE plpgsql AS 'BEGIN n := n + 1; COMMIT; END';
GRANT EXECUTE ON FUNCTION table_of() TO :"reader";
REVOKE EXECUTE ON PROCEDURE "Upper Case"."Proc" FROM PUBLIC;
COMMENT ON FUNCTION atomic(int, int, int[]) IS 'all at once';
CREATE FUNCTION pair_plus(pair, pair) RETURNS pair LANGUAGE sql IMMUTABLE AS 'SELECT ROW($1.a + $2.a, NULL, $1.c)::pair';
CREATE OPERATOR |+| (LEFTARG = pair, RIGHTARG = pair, FUNCTION = pair_plus, COMMUTATOR = |+|);
COMMENT ON OPERATOR |+| (pair, pair) IS 'adds';
CREATE FUNCTION pair_to_text(pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$SELECT 'pair ' || $1.a$$;
CREATE CAST (pair AS text) WITH FUNCTION pair_to_text(pair) AS ASSIGNMENT;
CREATE AGGREGATE pair_sum(pair) (SFUNC = pair_plus, STYPE = pair, INITCOND = '(0,,ok)', PARALLEL = SAFE);
CREATE FUNCTION add_one(n bigint, x int) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n + 1';
CREATE FUNCTION sub_one(n bigint, x int) RETURNS bigint LANGUAGE sql IMMUTABLE AS 'SELECT n - 1';
CREATE AGGREGATE moving(int) (SFUNC = add_one, STYPE = bigint, INITCOND = '0', MSFUNC = add_one, MINVFUNC = sub_one,
  MSTYPE = bigint, MINITCOND = '0');
CREATE TABLE checked_by_function (x int, CONSTRAINT calls CHECK (add_one(x, 1) > 0), d text DEFAULT by_name(1, 'x'));
INSERT INTO checked_by_function (x) VALUES (1);
CREATE INDEX ON checked_by_function (add_one(x, 2));

-- Views over views, of each kind; rules.
CREATE VIEW v1 AS SELECT id, price, total, xmin IS NULL AS never FROM made;
CREATE VIEW v2 WITH (security_barrier) AS SELECT * FROM v1 WHERE id > 5 WITH LOCAL CHECK OPTION;
CREATE VIEW "Upper Case".v3 (one, "two ""2""") AS SELECT v2.id, atomic(1) FROM v2 JOIN LATERAL rows_of(2) r ON true;
CREATE RECURSIVE VIEW ancestors (id, depth) AS
  SELECT id, 0 FROM tree WHERE parent IS NULL UNION ALL SELECT t.id, depth + 1 FROM tree t JOIN ancestors a ON t.parent = a.id;
CREATE VIEW grouped AS SELECT id, kind, at, count(*) OVER w, grouping(id) FROM parted GROUP BY at, kind, id
  WINDOW w AS (PARTITION BY kind ORDER BY at ROWS BETWEEN 1 PRECEDING AND CURRENT ROW EXCLUDE TIES);
CREATE VIEW by_key AS SELECT id, price, note FROM made GROUP BY id;
CREATE MATERIALIZED VIEW mat1 AS SELECT kind, count(*) AS n FROM parted GROUP BY kind;
CREATE UNIQUE INDEX ON mat1 (kind);
CREATE MATERIALIZED VIEW mat2 WITH (fillfactor = 70) AS SELECT sum(n) AS n, (SELECT max(id) FROM v2) AS id FROM mat1;
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 / 0 AS x WITH NO DATA;
CREATE VIEW over_mat AS SELECT mat2.n, unfilled.x FROM mat2, unfilled;
INSERT INTO made (price, size) VALUES (7, 7);
REFRESH MATERIALIZED VIEW mat2;
CREATE VIEW to_write AS SELECT id, "Value" FROM "Upper Case"."Table";
ALTER VIEW to_write ALTER "Value" SET DEFAULT 'by the view';
CREATE RULE instead_of AS ON DELETE TO to_write DO INSTEAD NOTHING;
CREATE RULE also AS ON UPDATE TO made WHERE old.size <> new.size DO ALSO
  (INSERT INTO unlogged (x) VALUES ('rule'); DELETE FROM no_rows);
CREATE RULE off AS ON INSERT TO refers DO ALSO NOTIFY refers;
ALTER TABLE refers DISABLE RULE off;
COMMENT ON VIEW v1 IS 'a view';
COMMENT ON COLUMN v1.price IS 'of it';
COMMENT ON RULE instead_of ON to_write IS 'a rule';

-- Triggers, in each of their states.
CREATE FUNCTION trigger_function() RETURNS trigger LANGUAGE plpgsql AS
  'BEGIN IF TG_LEVEL = ''ROW'' AND TG_OP <> ''DELETE'' THEN new.note := TG_ARGV[0]; RETURN new; END IF; RETURN NULL; END';
CREATE TRIGGER "a ""trigger""" BEFORE INSERT OR UPDATE OF price, size ON made FOR EACH ROW WHEN (new.size > 100)
  EXECUTE FUNCTION trigger_function('arg ''1''', E'two\\');
CREATE TRIGGER disabled BEFORE INSERT ON made FOR EACH ROW EXECUTE FUNCTION trigger_function('never');
CREATE TRIGGER for_replicas BEFORE INSERT ON made FOR EACH ROW EXECUTE FUNCTION trigger_function('replica');
CREATE TRIGGER of_statement AFTER DELETE ON made REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION trigger_function();
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON egg FROM hen DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION trigger_function();
CREATE TRIGGER of_view INSTEAD OF INSERT ON v1 FOR EACH ROW EXECUTE FUNCTION trigger_function('view');
CREATE FUNCTION of_partition() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER of_partitions AFTER INSERT ON parted FOR EACH ROW EXECUTE FUNCTION of_partition();
ALTER TABLE made DISABLE TRIGGER disabled;
ALTER TABLE made ENABLE REPLICA TRIGGER for_replicas;
ALTER TABLE made ENABLE ALWAYS TRIGGER of_statement;
ALTER TABLE parted_2020 DISABLE TRIGGER of_partitions;
COMMENT ON TRIGGER disabled ON made IS 'never';

-- Row security, and privileges by column.
CREATE TABLE secured (id int PRIMARY KEY, who name DEFAULT current_user, secret text);
INSERT INTO secured VALUES (1, :'reader', 'of the reader'), (2, :'writer', 'of the writer');
ALTER TABLE secured ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON secured USING (who = current_user);
CREATE POLICY "more ""of"" it" ON secured AS RESTRICTIVE FOR SELECT TO :"reader", :"writer" USING (id < 100);
CREATE POLICY adds ON secured FOR INSERT TO :"writer" WITH CHECK (EXISTS (SELECT FROM tree WHERE id = secured.id));
CREATE TABLE policy_but_off (x int);
CREATE POLICY nobody ON policy_but_off FOR UPDATE USING (false);
GRANT SELECT (id, who), UPDATE (secret) ON secured TO :"writer";
GRANT ALL ON secured TO :"reader" WITH GRANT OPTION;
REVOKE DELETE, TRUNCATE ON secured FROM :"reader";
REVOKE ALL ON never_used FROM :"owner";
GRANT USAGE ON SEQUENCE countdown TO PUBLIC;
COMMENT ON COLUMN secured.secret IS 'not for everyone';
COMMENT ON POLICY own ON secured IS 'one''s own';

-- Text search.
CREATE TEXT SEARCH DICTIONARY plain_words (TEMPLATE = simple, STOPWORDS = english);
CREATE TEXT SEARCH CONFIGURATION "Plain" (COPY = german);
ALTER TEXT SEARCH CONFIGURATION "Plain" ALTER MAPPING FOR asciiword WITH plain_words, german_stem;
CREATE INDEX ON indexed USING gist (to_tsvector('"Plain"', words));

-- Large objects: one of several pages, an empty one, one with a hole.
SELECT lo_from_bytea(770001, decode(repeat('00ff5c27', 5000), 'hex')), lo_create(770002), lo_create(770003);
SELECT lo_put(770003, 100000, 'after a hole');
COMMENT ON LARGE OBJECT 770001 IS 'a large object';
GRANT SELECT, UPDATE ON LARGE OBJECT 770001 TO :"writer";
CREATE TABLE has_large (id int, large oid);
INSERT INTO has_large VALUES (1, 770001), (2, 770002), (3, 770003);

CREATE PUBLICATION "Some tables" FOR TABLE made, "Upper Case"."Table" WITH (publish = 'insert, delete');
CREATE PUBLICATION of_nothing;
CREATE PUBLICATION of_parted FOR TABLE parted WITH (publish_via_partition_root);

-- What newer versions have.
SELECT :SERVER_VERSION_NUM >= 150000 AS is_15 \gset
\if :is_15
ALTER TABLE tree ADD CONSTRAINT nulls_are_same UNIQUE NULLS NOT DISTINCT (id, b);
CREATE TABLE sets_some (a int, b int DEFAULT 2, FOREIGN KEY (a, b) REFERENCES tree (a, b) ON DELETE SET NULL (b));
CREATE VIEW for_invoker WITH (security_invoker, check_option = cascaded) AS SELECT * FROM secured WHERE id > 0;
CREATE PUBLICATION of_columns FOR TABLE secured (id, who), tree WHERE (id > 2) WITH (publish = 'insert');
\endif

-- It may not matter that there are statistics, dead rows and a visibility map.
UPDATE indexed SET words = words || ' again' WHERE id % 3 = 0;
DELETE FROM indexed WHERE id % 50 = 0;
VACUUM ANALYZE indexed;
ANALYZE parted;
