module gradwire.dev/proto

go 1.24
