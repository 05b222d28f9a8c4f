CREATE VIEW tv AS SELECT k, c AS first, a AS second, arr, v FROM t;
