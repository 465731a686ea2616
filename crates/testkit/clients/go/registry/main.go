// A registry of container images with one image in it, for tests: on a port of its own, until its standard input ends.
//
//	registry ARCHIVE NAME [USER PASSWORD]
package main

import (
	"crypto/subtle"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

func main() {
	archive, repository := os.Args[1], os.Args[2]
	handler := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	auth := authn.Anonymous
	if len(os.Args) > 4 {
		auth = &authn.Basic{Username: os.Args[3], Password: os.Args[4]}
		handler = asking(handler, os.Args[3], os.Args[4])
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	go func() { check(http.Serve(listener, handler)) }()
	image, err := tarball.ImageFromPath(archive, nil)
	check(err)
	reference, err := name.ParseReference(listener.Addr().String()+"/"+repository, name.Insecure)
	check(err)
	check(remote.Write(reference, image, remote.WithAuth(auth)))
	fmt.Println(listener.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	check(err)
}

// asking lets in who knows name and password.
func asking(inner http.Handler, user, password string) http.Handler {
	same := func(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		givenUser, givenPassword, ok := r.BasicAuth()
		if !ok || !same(givenUser, user) || !same(givenPassword, password) {
			w.Header().Set("WWW-Authenticate", `Basic realm="test"`)
			http.Error(w, `{"errors":[{"code":"UNAUTHORIZED","message":"who are you?"}]}`, http.StatusUnauthorized)
			return
		}
		inner.ServeHTTP(w, r)
	})
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
