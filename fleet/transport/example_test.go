package transport_test

import (
	"fmt"
	"log"

	"github.com/vsfleet/vsfleet/fleet/transport"
)

func ExampleParseJump() {
	hops, err := transport.ParseJump("ops@bastion.example.net:2200,inner")
	if err != nil {
		log.Fatal(err)
	}
	for _, hop := range hops {
		fmt.Printf("%+v\n", hop)
	}
	// Output:
	// {User:ops Address:bastion.example.net Port:2200}
	// {User: Address:inner Port:0}
}
