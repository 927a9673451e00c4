// Package packages reads which packages a root filesystem has, from the databases of dpkg,
// apk and rpm, and compares versions as these tools do.
//
// It is given the bytes of a database, which may be a guest's: nothing is executed. Single
// entries that cannot be read are skipped. Of rpm's databases those in SQLite are read (rpm
// 4.16 and newer), by a reader of tables (sqlite.go) whose work is bounded by the size of the
// file. A change that SQLite has not yet moved from the -wal file into the database is not
// seen: rpm does that when it ends. Berkeley DB (Red Hat 8 and older) and ndb (SUSE) are
// refused by name.
//
// Sources: deb-control(5), deb-version(7); apk-world(5) and apk's database in
// lib/apk/db/installed; "Database File Format" of SQLite; rpm's lib/rpmtag.h, docs of its
// header format and of rpmvercmp.
package packages
