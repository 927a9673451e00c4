// Package packages reads which packages a root filesystem has, from the databases of dpkg
// and apk, and compares versions as these tools do.
//
// It is given the bytes of a database, which may be a guest's: nothing is executed, and
// what cannot be read is skipped. rpm keeps its database in SQLite or Berkeley DB files,
// which are not read here.
//
// Sources: deb-control(5), deb-version(7); apk-world(5) and apk's database in
// lib/apk/db/installed.
package packages
