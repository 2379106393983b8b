-- What only a superuser can make.
SET client_min_messages = warning;

CREATE EXTENSION postgres_fdw;
CREATE EXTENSION file_fdw;
CREATE EXTENSION pageinspect SCHEMA "Upper Case";
CREATE SERVER "far away" FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '192.0.2.1', dbname 'it''s not there');
CREATE USER MAPPING FOR :"reader" SERVER "far away" OPTIONS (user 'u', password 'secret of a mapping');
CREATE USER MAPPING FOR PUBLIC SERVER "far away";
CREATE FOREIGN TABLE foreign_table (id int OPTIONS (column_name 'ID'), x text COLLATE "C" NOT NULL DEFAULT 'y')
  SERVER "far away" OPTIONS (table_name 'elsewhere');
ALTER FOREIGN TABLE foreign_table OWNER TO :"owner";
GRANT USAGE ON FOREIGN SERVER "far away" TO :"writer";
CREATE SERVER of_files FOREIGN DATA WRAPPER file_fdw;
CREATE FOREIGN TABLE parted_far PARTITION OF no_partitions FOR VALUES FROM (1) TO (2) SERVER "far away";

CREATE FUNCTION on_event() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN RAISE DEBUG ''%'', tg_tag; END';
CREATE EVENT TRIGGER "on ""drop""" ON sql_drop WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA') EXECUTE FUNCTION on_event();
CREATE EVENT TRIGGER refuses ON ddl_command_start EXECUTE FUNCTION on_event();
ALTER EVENT TRIGGER refuses DISABLE;

CREATE PUBLICATION of_all FOR ALL TABLES;

-- A type of its own, with an operator class that sorts it backwards.
CREATE TYPE backwards;
CREATE FUNCTION backwards_in(cstring) RETURNS backwards LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
CREATE FUNCTION backwards_out(backwards) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int4out';
CREATE TYPE backwards (INPUT = backwards_in, OUTPUT = backwards_out, LIKE = int4);
CREATE FUNCTION backwards_lt(backwards, backwards) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4gt';
CREATE FUNCTION backwards_le(backwards, backwards) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4ge';
CREATE FUNCTION backwards_eq(backwards, backwards) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4eq';
CREATE FUNCTION backwards_ge(backwards, backwards) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4le';
CREATE FUNCTION backwards_gt(backwards, backwards) RETURNS bool LANGUAGE internal IMMUTABLE STRICT AS 'int4lt';
CREATE FUNCTION backwards_cmp(a backwards, b backwards) RETURNS int LANGUAGE sql IMMUTABLE STRICT
  AS 'SELECT btint4cmp($2::text::int, $1::text::int)';
CREATE OPERATOR < (LEFTARG = backwards, RIGHTARG = backwards, FUNCTION = backwards_lt, COMMUTATOR = >, NEGATOR = >=);
CREATE OPERATOR <= (LEFTARG = backwards, RIGHTARG = backwards, FUNCTION = backwards_le, COMMUTATOR = >=, NEGATOR = >);
CREATE OPERATOR = (LEFTARG = backwards, RIGHTARG = backwards, FUNCTION = backwards_eq, COMMUTATOR = =, RESTRICT = eqsel, HASHES, MERGES);
CREATE OPERATOR >= (LEFTARG = backwards, RIGHTARG = backwards, FUNCTION = backwards_ge, COMMUTATOR = <=, NEGATOR = <);
CREATE OPERATOR > (LEFTARG = backwards, RIGHTARG = backwards, FUNCTION = backwards_gt, COMMUTATOR = <, NEGATOR = <=);
CREATE OPERATOR FAMILY backwards_family USING btree;
CREATE OPERATOR CLASS backwards_class DEFAULT FOR TYPE backwards USING btree FAMILY backwards_family AS
  OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =, OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 backwards_cmp(backwards, backwards);
CREATE TABLE with_backwards (x backwards PRIMARY KEY, y backwards[]);
INSERT INTO with_backwards VALUES ('1', '{3,2}'), ('2', '{}'), ('10', NULL);
ALTER TABLE with_backwards OWNER TO :"owner";
CREATE CAST (backwards AS int) WITHOUT FUNCTION;
CREATE TRANSFORM FOR hstore LANGUAGE sql (FROM SQL WITH FUNCTION prsd_lextype(internal));
CREATE ACCESS METHOD another_heap TYPE TABLE HANDLER heap_tableam_handler;
CREATE TABLE in_another_heap (x int) USING another_heap;
INSERT INTO in_another_heap VALUES (1), (2);
CREATE TEXT SEARCH TEMPLATE own_template (LEXIZE = dsimple_lexize, INIT = dsimple_init);
CREATE CONVERSION own_conversion FOR 'LATIN1' TO 'UTF8' FROM iso8859_1_to_utf8;

-- What is owned by somebody who may not come in.
CREATE TABLE of_superuser (x int);
INSERT INTO of_superuser VALUES (1);
ALTER SCHEMA empty_schema OWNER TO :"writer";
SELECT lo_from_bytea(770004, 'of the superuser');
GRANT SELECT ON pg_catalog.pg_authid TO :"reader";
CREATE TABLE elsewhere (x int PRIMARY KEY USING INDEX TABLESPACE :"tablespace", y text) TABLESPACE :"tablespace";
INSERT INTO elsewhere VALUES (1, 'in another place');
CREATE TABLE parted_elsewhere (x int) PARTITION BY RANGE (x) TABLESPACE :"tablespace";

-- Settings that change what a session reads and writes, or end one that waits.
SELECT format('ALTER DATABASE %I SET %s', current_database(), setting) FROM unnest(ARRAY[
  'search_path = "Upper Case", public', 'datestyle = ''German, DMY''', 'intervalstyle = iso_8601',
  'timezone = ''Pacific/Chatham''', 'extra_float_digits = -5', 'bytea_output = escape', 'client_encoding = latin1',
  'standard_conforming_strings = off', 'xmloption = document', 'row_security = off',
  'lc_monetary = ''C''', 'statement_timeout = ''1500ms''', 'idle_in_transaction_session_timeout = ''1500ms''',
  'default_transaction_isolation = serializable', 'enable_seqscan = off',
  '"own.setting" = ''a ''''value'''' \ of its own''']) setting \gexec
SELECT format('ALTER ROLE %I IN DATABASE %I SET work_mem = ''3MB''', :'reader', current_database()) \gexec
SELECT format('COMMENT ON DATABASE %I IS ''a database''''s comment''', current_database()) \gexec
SELECT format('ALTER DATABASE %I CONNECTION LIMIT 50', current_database()) \gexec
SELECT format('REVOKE CONNECT, TEMPORARY ON DATABASE %I FROM PUBLIC', current_database()) \gexec
SELECT format('GRANT CONNECT ON DATABASE %I TO %I WITH GRANT OPTION', current_database(), :'reader') \gexec
SELECT format('GRANT CREATE ON DATABASE %I TO %I', current_database(), :'writer') \gexec
