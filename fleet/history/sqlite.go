package history

import (
	"database/sql"
	"net/url"
	"os"
	"path/filepath"

	_ "modernc.org/sqlite" // the driver
)

const database = "runs.db"

// openSQLite opens the database beside the journals, which is created if it is missing.
// Writers wait for one another; readers wait for nobody (WAL).
func openSQLite(k Keeper) (*store, error) {
	path := filepath.Join(k.Dir, database)
	if err := os.MkdirAll(k.Dir, 0o700); err != nil {
		return nil, err
	}
	// SQLite would create it with the umask's mode.
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := f.Close(); err != nil {
		return nil, err
	}
	query := url.Values{
		"_pragma": {"busy_timeout(5000)", "journal_mode(WAL)", "synchronous(FULL)"},
		"_txlock": {"immediate"}, // so that no transaction begins to read and then fails to write
	}
	address := url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", address.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return &store{db: db, name: path}, nil
}
