rule build_negative_pool:
    input:
        survey="results/survey.json",
        lenses="results/catalogue/lenses.json",
        code=code("dark_halo_scope.catalogue.negative_pool", "spark"),
    output:
        "results/catalogue/negative_pool.json",
    log:
        "logs/build_negative_pool.log",
    benchmark:
        "benchmarks/build_negative_pool.tsv"
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=240,
    params:
        settings=settings("survey", "negative_pool"),
    message:
        "Selecting galaxies that are no lenses, for a finder of real images (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark}"
        " dark_halo_scope.catalogue.negative_pool --"
        " --survey {input.survey} --lenses {input.lenses}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule measure_negative_pool:
    input:
        pool="results/catalogue/negative_pool.json",
        lenses="results/catalogue/lenses.json",
        code=code("dark_halo_scope.catalogue.measure_negative_pool", "spark"),
    output:
        "results/catalogue/negative_pool_gates.json",
    log:
        "logs/measure_negative_pool.log",
    benchmark:
        "benchmarks/measure_negative_pool.tsv"
    conda:
        "../envs/spark.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=60,
    params:
        settings=settings("survey", "negative_pool_gates"),
    message:
        "Measuring the gates of the negative pool"
    shell:
        "exec python -m dark_halo_scope.catalogue.measure_negative_pool"
        " --pool {input.pool} --lenses {input.lenses}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule match_positives:
    input:
        survey="results/survey.json",
        lenses="results/catalogue/lenses.json",
        code=code("dark_halo_scope.catalogue.positives", "spark"),
    output:
        "results/catalogue/positives.json",
    log:
        "logs/match_positives.log",
    benchmark:
        "benchmarks/match_positives.tsv"
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=240,
    params:
        settings=settings("survey", "positives"),
        pool=settings("survey", "negative_pool"),
    message:
        "Matching lenses with their galaxies in the sweeps (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.catalogue.positives --"
        " --survey {input.survey} --lenses {input.lenses} --pool-settings {params.pool:q}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule match_known_lenses:
    input:
        survey="results/survey.json",
        lenses="results/catalogue/lenses.json",
        code=code("dark_halo_scope.catalogue.positives", "spark"),
    output:
        "results/catalogue/known_lenses.json",
    log:
        "logs/match_known_lenses.log",
    benchmark:
        "benchmarks/match_known_lenses.tsv"
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=240,
    params:
        settings=every_discovery,
        pool=settings("survey", "negative_pool"),
    message:
        "Matching lenses, however they were found, with their galaxies in the sweeps (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.catalogue.positives --"
        " --survey {input.survey} --lenses {input.lenses} --pool-settings {params.pool:q}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule sample_negatives:
    input:
        pool="results/catalogue/negative_pool.json",
        positives=counted_positives,
        code=code("dark_halo_scope.catalogue.sample_negatives", "spark"),
    output:
        "results/catalogue/negatives.json",
    log:
        "logs/sample_negatives.log",
    benchmark:
        "benchmarks/sample_negatives.tsv"
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=120,
    params:
        settings=settings("survey", "negatives"),
    message:
        "Sampling negatives for each positive of the same stratum (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark}"
        " dark_halo_scope.catalogue.sample_negatives --"
        " --pool {input.pool} --positives {input.positives}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule list_real_images:
    input:
        positives="results/catalogue/positives.json",
        negatives="results/catalogue/negatives.json",
        code=code("dark_halo_scope.injection.list_real_images", "spark"),
    output:
        "results/datasets/{dataset}/manifest.json",
    log:
        "logs/list_real_images/{dataset}.log",
    benchmark:
        "benchmarks/list_real_images/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("real"),
    conda:
        "../envs/spark.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=settings("dataset", "real"),
    message:
        "Listing the lenses and negatives that {wildcards.dataset} has"
    shell:
        "exec python -m dark_halo_scope.injection.list_real_images"
        " --positives {input.positives} --negatives {input.negatives}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule cut_real_images:
    input:
        unpack(pixels_of),
        manifest="results/datasets/{dataset}/manifest.json",
        code=code("dark_halo_scope.injection.cut_real", "spark"),
    output:
        "results/datasets/{dataset}/stamps.json",
    log:
        "logs/cut_real_images/{dataset}.log",
    benchmark:
        "benchmarks/cut_real_images/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("real"),
    localrule: True
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        spark="local",
        mem_mb=6000,
        runtime=1440,
        # No param: results do not depend on it.
        asking=settings("survey", "asking"),
    params:
        settings=settings("dataset", "stamps"),
        real=settings("dataset", "real"),
        quality=settings("dataset", "cutout_quality"),
        service=settings("survey", "cutouts"),
        pixels=pixel_options,
    message:
        "Cutting out the real images of {wildcards.dataset} (Spark: {resources.spark})"
    shell:
        "exec python -m dark_halo_scope.spark.submit --backend {resources.spark} dark_halo_scope.injection.cut_real --"
        " --manifest {input.manifest} {params.pixels}"
        " --real-settings {params.real:q} --quality-settings {params.quality:q} --service-settings {params.service:q}"
        " --asking {resources.asking:q}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule check_training_data:
    input:
        stamps="results/datasets/{dataset}/stamps.json",
        code=code("dark_halo_scope.evaluation.check_training_data", "spark"),
    output:
        "results/datasets/{dataset}/quality.json",
    log:
        "logs/check_training_data/{dataset}.log",
    benchmark:
        "benchmarks/check_training_data/{dataset}.tsv"
    wildcard_constraints:
        dataset=datasets_of("real"),
    conda:
        "../envs/spark.yaml"
    threads: 2
    resources:
        mem_mb=8000,
        runtime=480,
    params:
        settings=settings("dataset", "training_gates"),
    message:
        "Checking {wildcards.dataset} before training: pixels, splits, overlap, weights, shortcuts"
    shell:
        "exec python -m dark_halo_scope.evaluation.check_training_data --stamps {input.stamps}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule validate_finder:
    input:
        model=deployed_model,
        val=own_scores("val"),
        test=own_scores("test"),
        history=last_history,
        code=code("dark_halo_scope.evaluation.validate_finder", "train"),
    output:
        json="results/{generation}/validation.json",
        top="results/{generation}/top_candidates.csv",
    log:
        "logs/validate_finder/{generation}.log",
    benchmark:
        "benchmarks/validate_finder/{generation}.tsv"
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        settings=settings("generation", "validation"),
    message:
        "Validating {wildcards.generation} on real images that chose nothing"
    shell:
        "exec python -m dark_halo_scope.evaluation.validate_finder --model {input.model} --val {input.val}"
        " --test {input.test} --history {input.history} --settings {params.settings:q}"
        " --output {output.json} --top {output.top} 2> >(tee {log} >&2)"


rule measure_known_lenses:
    input:
        model=deployed_model,
        validation="results/{generation}/validation.json",
        test=own_scores("test"),
        lenses="results/catalogue/known_lenses.json",
        galaxies=training_data("manifest"),
        coadds=coadds_of_injections,
        code=code("dark_halo_scope.evaluation.measure_known_lenses", "train"),
    output:
        json="results/{generation}/known_lenses.json",
        table="results/{generation}/known_lenses.csv",
    log:
        "logs/measure_known_lenses/{generation}.log",
    benchmark:
        "benchmarks/measure_known_lenses/{generation}.tsv"
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/train.yaml"
    threads: 2
    resources:
        gpu=1,
        mem_mb=4000,
        runtime=60,
    params:
        settings=settings("generation", "anchors"),
        stamps=training_settings("stamps"),
        quality=training_settings("cutout_quality"),
    message:
        "Measuring the recall of known lenses that {wildcards.generation} has never seen (asks for {resources.gpu} GPU)"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_known_lenses --model {input.model}"
        " --validation {input.validation} --test {input.test} --lenses {input.lenses} --galaxies {input.galaxies}"
        " --coadds {input.coadds} --stamp-settings {params.stamps:q} --quality-settings {params.quality:q}"
        " --settings {params.settings:q} --threads {threads} --output {output.json} --table {output.table}"
        " 2> >(tee {log} >&2)"


rule figure_validation:
    input:
        validation="results/{generation}/validation.json",
        known=lenses_never_seen,
        code=code("dark_halo_scope.paper.validation_figure", "figures"),
    output:
        report(
            "results/{generation}/validation.png",
            caption="../workflow/report/figure_validation.rst",
            category="Finders of real images",
            labels={"what": "{generation}", "shows": "validation"},
        ),
        "results/{generation}/validation.pdf",
    log:
        "logs/figure_validation/{generation}.log",
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/figures.yaml"
    threads: 1
    resources:
        mem_mb=1000,
        runtime=10,
    params:
        settings=settings("generation", "figure_validation"),
        threshold=shown_threshold("figure_validation"),
    message:
        "Drawing how {wildcards.generation} did on the test split"
    shell:
        "exec python -m dark_halo_scope.paper.validation_figure --validation {input.validation} --known {input.known}"
        " --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule freeze_model:
    input:
        model=deployed_model,
        validation="results/{generation}/validation.json",
        code=code("dark_halo_scope.evaluation.freeze_model", "train"),
    output:
        "results/{generation}/frozen.json",
    log:
        "logs/freeze_model/{generation}.log",
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/train.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=15,
    params:
        settings=settings("generation", "freeze"),
    message:
        "Freezing {wildcards.generation}: network, preprocessing, thresholds and calibration"
    shell:
        "exec python -m dark_halo_scope.evaluation.freeze_model --model {input.model} --validation {input.validation}"
        " --device cpu --settings {params.settings:q} --output {output} 2> >(tee {log} >&2)"


rule inject_recovery:
    input:
        frozen="results/{generation}/frozen.json",
        model=deployed_model,
        survey="results/survey.json",
        hosts="results/catalogue/parent.json",
        lenses="results/catalogue/lenses.json",
        coadds=coadds_of_injections,
        sources="results/catalogue/sources.json",
        code=code("dark_halo_scope.evaluation.inject_recovery", "train"),
    output:
        "results/{generation}/recovery.json",
    log:
        "logs/inject_recovery/{generation}.log",
    benchmark:
        "benchmarks/inject_recovery/{generation}.tsv"
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/train.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=480,
    params:
        settings=settings("generation", "recovery"),
    message:
        "Injecting lenses into galaxies of the test split, for {wildcards.generation} to find (asks for {resources.gpu} GPU)"
    shell:
        "exec python -m dark_halo_scope.evaluation.inject_recovery --frozen {input.frozen} --model {input.model}"
        " --survey {input.survey} --hosts {input.hosts} --lenses {input.lenses} --coadds {input.coadds}"
        " --sources {input.sources} --settings {params.settings:q} --threads {threads} --workers {threads}"
        " --output {output} 2> >(tee {log} >&2)"


rule measure_ladder:
    input:
        frozen="results/{generation}/frozen.json",
        model=deployed_model,
        recovery="results/{generation}/recovery.json",
        packed=training_data("packed"),
        survey="results/survey.json",
        hosts="results/catalogue/parent.json",
        lenses="results/catalogue/lenses.json",
        coadds=coadds_of_injections,
        sources="results/catalogue/sources.json",
        code=code("dark_halo_scope.evaluation.measure_ladder", "train"),
    output:
        "results/{generation}/ladder.json",
    log:
        "logs/measure_ladder/{generation}.log",
    benchmark:
        "benchmarks/measure_ladder/{generation}.tsv"
    wildcard_constraints:
        generation=finders(),
    conda:
        "../envs/train.yaml"
    threads: 16
    resources:
        gpu=1,
        mem_mb=16000,
        runtime=60,
    params:
        settings=settings("generation", "ladder"),
    message:
        "Comparing injections with real lenses rung by rung, for {wildcards.generation} (asks for {resources.gpu} GPU)"
    shell:
        "exec python -m dark_halo_scope.evaluation.measure_ladder --frozen {input.frozen} --model {input.model}"
        " --recovery {input.recovery} --packed {input.packed}"
        " --survey {input.survey} --hosts {input.hosts} --lenses {input.lenses} --coadds {input.coadds}"
        " --sources {input.sources} --settings {params.settings:q} --threads {threads} --workers {threads}"
        " --output {output} 2> >(tee {log} >&2)"
