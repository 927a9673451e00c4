package view_test

import (
	"log"
	"os"

	"github.com/vsfleet/vsfleet/fleet/view"
)

func ExampleTable() {
	err := view.Table(os.Stdout, []string{"HOST", ">PROC", "NAME"}, [][]string{
		{"web01", "3", "www"},
		{"web02", "12", "www"},
	})
	if err != nil {
		log.Fatal(err)
	}
	// Output:
	// HOST   PROC  NAME
	// web01     3  www
	// web02    12  www
}
