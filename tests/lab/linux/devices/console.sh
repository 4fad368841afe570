# A console of several ports, as Linux uses it. Read by guest_devices_init.
# programs: agetty
cat > /tmp/login << 'END'
#!/bin/sh
# What agetty starts with "-- NAME": asks for a password and is satisfied with any.
printf 'Password: '
stty -echo
read -r password
stty echo
echo
echo "welcome $2, who said $password on $(tty)"
while printf '$ ' && read -r line && [ "$line" != exit ]; do $line; done
END
chmod +x /tmp/login
mkdir -p /run

port() { # the device of the port named $1
  for port in /sys/class/virtio-ports/*; do
    [ "$(cat "$port/name")" != "$1" ] || echo "/dev/${port##*/}"
  done
}
agent=$(port org.example.agent) log=$(port org.example.log)
same ports "$(ls /sys/class/virtio-ports | wc -l)" 4
same names "$(cat /sys/class/virtio-ports/*/name | grep -c -E '^(login|org\.example\.(agent|log))$')" 3
[ -c "$agent" ] && [ -c "$log" ] && why= || why="there are $(ls /dev/vport*)"
check devices "$why"
[ -c /dev/hvc0 ] && [ -c /dev/hvc1 ] && why= || why="there are only $(echo /dev/hvc*)"
check consoles "$why"
saw size "$(stty size < /dev/hvc1)"

# Somebody on the host logs in on hvc1; hvc0 goes to a file, so nobody does there.
for console in hvc0 hvc1; do
  setsid agetty --noclear --nohostname -l /tmp/login "$console" 115200 vt102 < /dev/null \
    > "/tmp/agetty.$console" 2>&1 &
done
tell getty
await

# An agent that answers questions. While nobody is connected its reads give the end of file.
exec 3<> "$agent"
answered=0 ends=0 polls=0
tell agent
while [ $answered -lt 2 ] && [ $polls -lt 600 ]; do
  if read -r line <&3; then
    echo "answer $answered to $line" >&3
    answered=$((answered + 1))
  else
    [ $answered -ne 1 ] || ends=$((ends + 1))
    usleep 100000
  fi
  polls=$((polls + 1))
done
same answers "$answered" 2
[ $ends -gt 0 ] && why= || why="the agent did not see the first client leave"
check client_left "$why"
exec 3>&-

# A reader that is connected and never reads does not stop the guest.
await
work flood dd if=/dev/zero of="$log" bs=65536 count=64
echo "the end of the flood" > "$log"
tell flooded
await
