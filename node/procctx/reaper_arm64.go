package procctx

import _ "embed"

const reaperMachine = 183 // EM_AARCH64

//go:embed reaper/reaper_arm64.bin
var reaperCode []byte
