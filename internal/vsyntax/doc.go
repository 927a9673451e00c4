// Package vsyntax reads lists and numbers as util-vserver writes them, in the files of
// a guest's configuration and in options:
//
//	lists    words separated by commas, blanks or line breaks; # begins a comment line
//	flags    a name, with or without its prefix, in either case; ^N is bit N; a number
//	         is a mask; all and any are every flag; a leading ~ or ! takes away
//	numbers  decimal, or hexadecimal after 0x; K, M, G are powers of 1024, k, m, g of 1000
//
// Errors have the line and column of the word. The package reads values and opens no
// file.
package vsyntax
