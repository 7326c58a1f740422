// SPDX-License-Identifier: Apache-2.0

// The reference for waiting.py: Go's net/http server, a goroutine for each connection, which sleeps as
// long. Usage: sleep PORT
package main

import (
	"log"
	"net/http"
	"os"
	"time"
)

func answer(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Content-Length", "11")
	if _, err := w.Write([]byte("Hello World")); err != nil {
		return // the client has gone
	}
}

func main() {
	if len(os.Args) != 2 {
		log.Fatal("usage: sleep PORT")
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { answer(w) })
	http.HandleFunc("/sleep", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(100 * time.Millisecond)
		answer(w)
	})
	http.HandleFunc("/many", func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < 20; i++ {
			time.Sleep(time.Millisecond)
		}
		answer(w)
	})
	http.HandleFunc("/hold", func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(8 * time.Second)
		answer(w)
	})
	log.Fatal(http.ListenAndServe("127.0.0.1:"+os.Args[1], nil))
}
