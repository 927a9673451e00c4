package nodeset_test

import (
	"fmt"

	"github.com/vsfleet/vsfleet/internal/nodeset"
)

func ExampleFold() {
	fmt.Println(nodeset.Fold([]string{"web01", "web02", "web03", "web07", "db1"}))
	// Output: db1,web[01-03,07]
}

func ExampleExpand() {
	fmt.Println(nodeset.Expand("web[01-03,07]"))
	// Output: [web01 web02 web03 web07] <nil>
}
