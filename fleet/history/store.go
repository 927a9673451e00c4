package history

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/klauspost/compress/zstd"

	"github.com/vsfleet/vsfleet/fleet/report"
)

// store is the database of runs. SQLite and PostgreSQL understand the same
// statements, parameters and types: BYTEA holds bytes in both.
type store struct {
	db   *sql.DB
	name string // for errors, without a password
	// lock makes the transaction that changes the schema the only one.
	lock string
}

// open opens the store that the keeper names, and brings its schema up to date.
func (k Keeper) open(ctx context.Context) (*store, error) {
	open := openSQLite
	if k.Store != "" {
		open = openPostgres
	}
	s, err := open(k)
	if err != nil {
		return nil, err
	}
	if err := s.migrate(ctx); err != nil {
		s.Close()
		return nil, s.failed("open", err)
	}
	return s, nil
}

// Close ends the connections.
func (s *store) Close() { s.db.Close() }

// failed adds the name of the store to an error.
func (s *store) failed(what string, err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		err = errors.New("it does not answer in time")
	}
	return fmt.Errorf("%s the history %s: %w", what, s.name, err)
}

// migrations lead from each version of the schema to the next. Released ones are never
// changed.
var migrations = []string{
	// 1. head is a report.HistoryRecord; journal is what the run's journal held,
	// compressed, in a table of its own so that lists need not read past it.
	`CREATE TABLE runs (
		id TEXT PRIMARY KEY,
		began BIGINT NOT NULL,
		verb TEXT NOT NULL,
		who TEXT NOT NULL,
		status TEXT NOT NULL,
		hosts TEXT NOT NULL,
		head TEXT NOT NULL
	);
	CREATE INDEX runs_began ON runs (began);
	CREATE TABLE journals (
		id TEXT PRIMARY KEY,
		journal BYTEA NOT NULL
	)`,
}

// migrate brings the schema up to date. Several vsfleets may do it at once.
func (s *store) migrate(ctx context.Context) error {
	if version, err := s.version(ctx, s.db); err == nil && version == len(migrations) {
		return nil
	}
	return s.within(ctx, func(tx *sql.Tx) error {
		if s.lock != "" {
			if _, err := tx.ExecContext(ctx, s.lock); err != nil {
				return err
			}
		}
		if _, err := tx.ExecContext(ctx, `CREATE TABLE IF NOT EXISTS vsfleet_schema (version BIGINT NOT NULL)`); err != nil {
			return err
		}
		version, err := s.version(ctx, tx)
		if err != nil {
			return err
		}
		if version > len(migrations) {
			return fmt.Errorf("it has version %d, which a newer vsfleet made: this one knows %d", version, len(migrations))
		}
		for ; version < len(migrations); version++ {
			if _, err := tx.ExecContext(ctx, migrations[version]); err != nil {
				return fmt.Errorf("bring it to version %d: %w", version+1, err)
			}
			if _, err := tx.ExecContext(ctx, `INSERT INTO vsfleet_schema (version) VALUES ($1)`, version+1); err != nil {
				return err
			}
		}
		return nil
	})
}

type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

func (s *store) version(ctx context.Context, q querier) (version int, err error) {
	err = q.QueryRowContext(ctx, `SELECT COALESCE(MAX(version), 0) FROM vsfleet_schema`).Scan(&version)
	return version, err
}

// within calls do in a transaction.
func (s *store) within(ctx context.Context, do func(*sql.Tx) error) error {
	tx, err := s.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		_ = tx.Rollback() // the first error says why
		return err
	}
	return tx.Commit()
}

// put adds a run with its journal, or replaces it.
func (s *store) put(ctx context.Context, run report.KeptRecord, journal []byte) error {
	packed := packer().EncodeAll(journal, nil)
	head, err := json.Marshal(run.HistoryRecord)
	if err != nil {
		return err
	}
	err = s.within(ctx, func(tx *sql.Tx) error {
		if _, err := tx.ExecContext(ctx, putRow, row(run.HistoryRecord, head)...); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, `INSERT INTO journals (id, journal) VALUES ($1, $2)
			ON CONFLICT (id) DO UPDATE SET journal = excluded.journal`, run.ID, packed)
		return err
	})
	if err != nil {
		return s.failed("write to", err)
	}
	return nil
}

const putRow = `INSERT INTO runs (id, began, verb, who, status, hosts, head) VALUES ($1, $2, $3, $4, $5, $6, $7)
	ON CONFLICT (id) DO UPDATE SET began = excluded.began, verb = excluded.verb, who = excluded.who,
		status = excluded.status, hosts = excluded.hosts, head = excluded.head`

// row returns the values of putRow.
func row(r report.HistoryRecord, head []byte) []any {
	return []any{r.ID, r.When.UnixMicro(), r.Verb, r.Who, string(r.Status), r.Hosts, noNUL(string(head))}
}

// noNUL removes what PostgreSQL's TEXT cannot hold.
func noNUL(text string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(text, "�"), `\u0000`, "")
}

var (
	packer = sync.OnceValue(func() *zstd.Encoder {
		w, _ := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1)) // no option that can fail
		return w
	})
	unpacker = sync.OnceValue(func() *zstd.Decoder {
		r, _ := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(4*mostJournal))
		return r
	})
)

// list calls each for the runs that a query selects, the newest first, until it
// returns false.
func (s *store) list(ctx context.Context, q Query, each func(report.HistoryRecord) bool) error {
	where, args := []string{"1 = 1"}, []any{}
	and := func(condition string, arg any) {
		args = append(args, arg)
		where = append(where, fmt.Sprintf(condition, len(args)))
	}
	if !q.Since.IsZero() {
		and("began >= $%d", q.Since.UnixMicro())
	}
	if q.Verb != "" {
		words := q.Verb + " "
		and(fmt.Sprintf("substr(verb || ' ', 1, %d) = $%%d", utf8.RuneCountInString(words)), words)
	}
	if q.Failed {
		and("status <> $%d", string(report.KeptOK))
		args = append(args, string(report.KeptRunning), time.Now().Add(-silentAfter).UnixMicro())
		where = append(where, fmt.Sprintf("(status <> $%d OR began < $%d)", len(args)-1, len(args)))
	}
	if q.Host != nil {
		// There are far fewer different sets of hosts than runs.
		sets, err := s.sets(ctx, q)
		if err != nil || sets == nil {
			return err
		}
		var places []string
		for _, hosts := range sets {
			args = append(args, hosts)
			places = append(places, fmt.Sprintf("$%d", len(args)))
		}
		where = append(where, "hosts IN ("+strings.Join(places, ", ")+")")
	}
	text := `SELECT head FROM runs WHERE ` + strings.Join(where, " AND ") + ` ORDER BY began DESC`
	if q.Limit > 0 {
		text += fmt.Sprintf(" LIMIT %d", q.Limit)
	}
	rows, err := s.db.QueryContext(ctx, text, args...)
	if err != nil {
		return s.failed("read", err)
	}
	defer rows.Close()
	for rows.Next() {
		var head []byte
		if err := rows.Scan(&head); err != nil {
			return s.failed("read", err)
		}
		var r report.HistoryRecord
		if err := json.Unmarshal(head, &r); err != nil {
			return s.failed("read", err)
		}
		if r.Status == report.KeptRunning && time.Since(r.Seen) > silentAfter {
			r.Status, r.Waiting = report.KeptInterrupted, ""
		}
		if q.Failed && r.Status == report.KeptRunning {
			continue
		}
		if !each(r) {
			return nil
		}
	}
	if err := rows.Err(); err != nil {
		return s.failed("read", err)
	}
	return nil
}

// mostSets bounds the parameters of a statement; SQLite takes 32766, PostgreSQL 65535.
const mostSets = 30_000

// sets returns the sets of hosts that contain a host of a query.
func (s *store) sets(ctx context.Context, q Query) (sets []string, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT DISTINCT hosts FROM runs`)
	if err != nil {
		return nil, s.failed("read", err)
	}
	defer rows.Close()
	for rows.Next() && len(sets) < mostSets {
		var hosts string
		if err := rows.Scan(&hosts); err != nil {
			return nil, s.failed("read", err)
		}
		if q.on(hosts) {
			sets = append(sets, hosts)
		}
	}
	if err := rows.Err(); err != nil {
		return nil, s.failed("read", err)
	}
	return sets, nil
}

// journal returns the journal of a run.
func (s *store) journal(ctx context.Context, id string) ([]byte, error) {
	var packed []byte
	switch err := s.db.QueryRowContext(ctx, `SELECT journal FROM journals WHERE id = $1`, id).Scan(&packed); {
	case errors.Is(err, sql.ErrNoRows):
		return nil, &UnknownError{ID: id}
	case err != nil:
		return nil, s.failed("read", err)
	}
	data, err := unpacker().DecodeAll(packed, nil)
	if err != nil {
		return nil, s.failed("read", fmt.Errorf("run %s: %w", id, err))
	}
	return data, nil
}

// ids returns up to three IDs of runs that begin with a text, or whose part after the
// time does.
func (s *store) ids(ctx context.Context, begin string) (ids []string, err error) {
	rows, err := s.db.QueryContext(ctx, `SELECT id FROM runs WHERE substr(id, 1, $2) = $1 OR substr(id, 18, $2) = $1 ORDER BY id DESC LIMIT 3`,
		begin, len(begin))
	if err != nil {
		return nil, s.failed("read", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, s.failed("read", err)
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// remove removes runs and returns their number.
func (s *store) remove(ctx context.Context, ids []string) (removed int, err error) {
	err = s.within(ctx, func(tx *sql.Tx) error {
		for _, id := range ids {
			if _, err := tx.ExecContext(ctx, `DELETE FROM journals WHERE id = $1`, id); err != nil {
				return err
			}
			res, err := tx.ExecContext(ctx, `DELETE FROM runs WHERE id = $1`, id)
			if err != nil {
				return err
			}
			n, err := res.RowsAffected()
			if err != nil {
				return err
			}
			removed += int(n)
		}
		return nil
	})
	if err != nil {
		return 0, s.failed("remove from", err)
	}
	return removed, nil
}

// pruneAtOnce bounds how many runs the end of one run removes.
const pruneAtOnce = 100

// prune removes at most most runs that keep excludes, oldest first, and returns their
// number.
func (s *store) prune(ctx context.Context, keep Keep, most int) (int, error) {
	var ids []string
	add := func(query string, args ...any) error {
		rows, err := s.db.QueryContext(ctx, query, args...)
		if err != nil {
			return s.failed("read", err)
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return s.failed("read", err)
			}
			ids = append(ids, id)
		}
		return rows.Err()
	}
	if keep.Runs > 0 {
		var all int
		if err := s.db.QueryRowContext(ctx, `SELECT COUNT(*) FROM runs`).Scan(&all); err != nil {
			return 0, s.failed("read", err)
		}
		if over := min(all-keep.Runs, most); over > 0 {
			if err := add(`SELECT id FROM runs ORDER BY began LIMIT $1`, over); err != nil {
				return 0, err
			}
		}
	}
	if keep.For > 0 {
		if err := add(`SELECT id FROM runs WHERE began < $1 ORDER BY began LIMIT $2`, time.Now().Add(-keep.For).UnixMicro(), most); err != nil {
			return 0, err
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return s.remove(ctx, ids)
}
