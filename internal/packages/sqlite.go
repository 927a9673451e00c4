package packages

import "strings"

// A database is a SQLite database file, whoever wrote it, by the document "Database File
// Format" of SQLite. No more pages are read than there are, and no more bytes of rows, so
// that cycles and rows that overlap end.
type database struct {
	data     []byte
	pageSize int
	usable   int // bytes of a page
	pages    int // that may still be read
	bytes    int // of rows, as well
	damaged  bool
	visit    func(columns [][]byte)
}

// readTable calls visit with the columns of each row of a table, and reports whether it has
// read all of them.
func readTable(data []byte, table string, visit func(columns [][]byte)) bool {
	db := &database{data: data, pageSize: number(data, 16, 2), pages: 1, bytes: len(data)}
	if db.pageSize == 1 {
		db.pageSize = 1 << 16
	}
	db.usable = db.pageSize - number(data, 20, 1)
	if db.usable < 480 || !strings.HasPrefix(string(data[:16]), "SQLite format 3\x00") {
		return false
	}
	db.pages = len(data) / db.pageSize
	root := 0
	db.visit = func(c [][]byte) { // of sqlite_schema: type, name, tbl_name, rootpage, sql
		if len(c) > 3 && string(c[1]) == table {
			root = number(c[3], 0, len(c[3]))
		}
	}
	db.walk(1)
	db.visit = visit
	db.walk(root)
	return !db.damaged
}

// page returns a page by its number, from 1; nil if there is none.
func (db *database) page(n int) []byte {
	db.pages--
	if end := n * db.pageSize; n > 0 && end <= len(db.data) && db.pages >= 0 {
		return db.data[end-db.pageSize : end]
	}
	db.damaged = true
	return nil
}

// walk visits the rows of the table that begins at a page.
func (db *database) walk(n int) {
	page := db.page(n)
	head := page
	if n == 1 && page != nil {
		head = page[100:]
	}
	pointers := 8
	inner := number(head, 0, 1) == 5
	if inner {
		pointers = 12
	} else if number(head, 0, 1) != 13 {
		db.damaged = true
		return
	}
	for i := range number(head, 3, 2) {
		at := number(head, pointers+2*i, 2)
		switch {
		case at < 0 || at > db.usable:
			db.damaged = true
		case inner:
			db.walk(number(page, at, 4))
		default:
			db.row(page[at:db.usable])
		}
		if db.damaged {
			return
		}
	}
	if inner {
		db.walk(number(head, 8, 4))
	}
}

// row visits the row of a cell: its size, its ID, what of it is on this page, and the number
// of the page that has the rest, if there is any.
func (db *database) row(cell []byte) {
	size, cell := varint(cell)
	_, cell = varint(cell)
	most := db.usable - 35 // on this page
	local := size
	if size > most {
		least := (db.usable-12)*32/255 - 23
		if local = least + (size-least)%(db.usable-4); local > most {
			local = least
		}
	}
	if db.bytes -= size; db.bytes < 0 || local > len(cell) {
		db.damaged = true
		return
	}
	payload := cell[:local:local]
	for cell = cell[local:]; len(payload) < size; {
		next := db.page(number(cell, 0, 4))
		if next == nil {
			return
		}
		payload = append(payload, next[4:min(db.usable, 4+size-len(payload))]...)
		cell = next
	}
	// The length of the types, the types, the values.
	length, types := varint(payload)
	used := len(payload) - len(types)
	if length < used || length > len(payload) {
		db.damaged = true
		return
	}
	values := payload[length:]
	types = payload[used:length]
	var columns [][]byte
	for len(types) > 0 {
		var size int
		if size, types = varint(types); size >= 12 { // a blob or a text
			size = (size - 12) / 2
		} else {
			size = int("\x00\x01\x02\x03\x04\x06\x08\x08\x00\x00\x00\x00"[size])
		}
		if size > len(values) {
			db.damaged = true
			return
		}
		columns = append(columns, values[:size])
		values = values[size:]
	}
	if columns != nil {
		db.visit(columns)
	}
}

// varint takes a number of up to nine bytes, the highest first. More than anything here has
// is as much as can be.
func varint(b []byte) (n int, rest []byte) {
	const most = 1 << 40
	for i, c := range b {
		if n = min(n<<7|int(c&0x7f), most); c < 0x80 || i == 8 {
			return n, b[i+1:]
		}
	}
	return most, nil
}

// number returns a number of some bytes at an offset, the highest first; -1 if it is not
// there.
func number(b []byte, at, size int) (n int) {
	if at < 0 || at+size > len(b) {
		return -1
	}
	for _, c := range b[at : at+size] {
		n = n<<8 | int(c)
	}
	return n
}
