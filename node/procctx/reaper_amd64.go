package procctx

import _ "embed"

const reaperMachine = 62 // EM_X86_64

//go:embed reaper/reaper_amd64.bin
var reaperCode []byte
