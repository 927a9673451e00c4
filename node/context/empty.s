// Lets the compiler accept the functions of script.go that have no body: they are the runtime's.
