# shellcheck shell=bash
# Apache Kafka: fetches its jars with Maven, and runs one KRaft node on them.

KAFKA_LIBS=$SOFTWARE/kafka/libs
KAFKA_DIR=$STATE/kafka

kafka_wanted_version() { sed -n 's|.*<kafka.version>\(.*\)</kafka.version>.*|\1|p' "$LOCAL_SOURCE/kafka/pom.xml"; }

kafka_provision() {
    # The marker is a copy of the pom, written last: an interrupted or outdated fetch starts again.
    cmp -s "$LOCAL_SOURCE/kafka/pom.xml" "$SOFTWARE/kafka/pom.xml" && return
    say "fetching Kafka $(kafka_wanted_version)"
    rm -rf "$SOFTWARE/kafka"
    mkdir -p "$KAFKA_LIBS"
    mvn -q -B -f "$LOCAL_SOURCE/kafka/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
        -DoutputDirectory="$KAFKA_LIBS" >>"$LOGS/setup.log" 2>&1 ||
        die "Maven could not fetch Kafka: see $(relative "$LOGS/setup.log"); check the network (or Maven's mirror in ~/.m2/settings.xml) and run this again"
    cp "$LOCAL_SOURCE/kafka/pom.xml" "$SOFTWARE/kafka/pom.xml"
}

kafka_configure() {
    mkdir -p "$KAFKA_DIR"
    sed -e "s|@PORT@|$PORT_KAFKA|g" -e "s|@CONTROLLER_PORT@|$PORT_KAFKA_CONTROLLER|g" -e "s|@DATA_DIR@|$KAFKA_DIR/data|g" \
        "$LOCAL_SOURCE/kafka/server.properties.in" | write_file "$KAFKA_DIR/server.properties"
    [[ -f $KAFKA_DIR/data/meta.properties ]] && return
    # A cluster id is 16 bytes in URL-safe base64 without padding; a leading '-' would read as an option.
    local id
    id=W$(head -c 16 /dev/urandom | base64 | tr '+/' 'AB' | cut -c2-21)A
    java -cp "$KAFKA_LIBS/*" -Dlog4j2.configurationFile="$LOCAL_SOURCE/kafka/log4j2.xml" -Dwired.kafka.log="$LOGS/kafka.log" \
        kafka.tools.StorageTool format -t "$id" -c "$KAFKA_DIR/server.properties" >>"$LOGS/setup.log" 2>&1 ||
        die "Kafka could not format its folder: see $(relative "$LOGS/setup.log")"
}

kafka_answers() {
    is_running kafka || return 0 # Died: stop waiting, the caller looks again.
    port_answers "$PORT_KAFKA"
}

kafka_start() {
    is_running kafka && return
    require_port_free Kafka "$PORT_KAFKA"
    require_port_free "Kafka's controller" "$PORT_KAFKA_CONTROLLER"
    require_free_mib 500 Kafka
    kafka_configure
    # A fixed heap: what a broker needs beyond it is page cache, which the system lends and takes back.
    spawn kafka java -Xms256m -Xmx512m -XX:+UseG1GC -XX:MaxGCPauseMillis=20 -XX:+ExplicitGCInvokesConcurrent \
        -Djava.awt.headless=true -Dlog4j2.configurationFile="$LOCAL_SOURCE/kafka/log4j2.xml" \
        -Dwired.kafka.log="$LOGS/kafka.log" -cp "$KAFKA_LIBS/*" kafka.Kafka "$KAFKA_DIR/server.properties"
}

kafka_wait() {
    wait_until 60 kafka_answers && is_running kafka && return
    last_log_lines kafka
    die "Kafka did not start: see $(relative "$LOGS/kafka.log") above for the reason"
}
